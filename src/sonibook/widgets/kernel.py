"""The packages behind what moves in a notebook, or a sentence that says how to get them."""

try:
    import anywidget
    import ipywidgets as widgets
    import traitlets
except ModuleNotFoundError as error:
    raise ImportError(
        f"Sliders and players in a notebook need {error.name}, which is not installed: "
        "pip install 'sonibook[lab]'."
    ) from None

__all__ = ["anywidget", "traitlets", "widgets"]
