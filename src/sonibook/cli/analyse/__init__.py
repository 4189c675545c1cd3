"""``sonibook analyse``: the analyses, one command each, in one file each."""

from __future__ import annotations

import typer

from sonibook.cli.analyse.ablation import ABLATION_EXAMPLES, ablation
from sonibook.cli.analyse.activations import ACTIVATIONS_EXAMPLES, activations
from sonibook.cli.analyse.coherence import COHERENCE_EXAMPLES, coherence
from sonibook.cli.analyse.evolution import EVOLUTION_EXAMPLES, evolution
from sonibook.cli.analyse.explanations import EXPLANATIONS_EXAMPLES, explanations
from sonibook.cli.analyse.layers import LAYERS_EXAMPLES, layers
from sonibook.cli.analyse.sanity import SANITY_EXAMPLES, sanity
from sonibook.cli.analyse.selectivity import SELECTIVITY_EXAMPLES, selectivity
from sonibook.cli.analyse.separation import SEPARATION_EXAMPLES, separation
from sonibook.cli.analyse.ways import WAYS_EXAMPLES, ways
from sonibook.cli.output import examples

analyse_commands = typer.Typer(
    help="Measure what filters respond to over a data set, beside controls.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples(
        "sonibook analyse coherence supervised --dataset soundscapes --limit 40",
        "sonibook analyse coherence supervised random --dataset esc10 --out coherence.json "
        "--figure coherence.png",
    )
    + "\n\nWith --out, what was interrupted goes on where it stood when run again.",
)
analyse_commands.command("ablation", epilog=ABLATION_EXAMPLES)(ablation)
analyse_commands.command("activations", epilog=ACTIVATIONS_EXAMPLES)(activations)
analyse_commands.command("coherence", epilog=COHERENCE_EXAMPLES)(coherence)
analyse_commands.command("evolution", epilog=EVOLUTION_EXAMPLES)(evolution)
analyse_commands.command("explanations", epilog=EXPLANATIONS_EXAMPLES)(explanations)
analyse_commands.command("layers", epilog=LAYERS_EXAMPLES)(layers)
analyse_commands.command("sanity", epilog=SANITY_EXAMPLES)(sanity)
analyse_commands.command("selectivity", epilog=SELECTIVITY_EXAMPLES)(selectivity)
analyse_commands.command("separation", epilog=SEPARATION_EXAMPLES)(separation)
analyse_commands.command("ways", epilog=WAYS_EXAMPLES)(ways)
