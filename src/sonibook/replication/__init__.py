"""The paper's tables and claims, beside what was measured here.

From bottom to top: `benchmarks` says which pretrained networks there are and what they are tested
on, `paper` what the paper reports and what each table is to hold; `trials` measures and keeps what
was measured, `tables` makes rows of it. `results` reads the results files that the two `claims`
modules test the paper by, and `verdict` judges.
"""

from sonibook import _names_of

__getattr__ = _names_of(
    __name__,
    benchmarks="pair_sounds",
    claims_scores="probe_gains",
    claims_sounds="SOUND_CLAIMS",
    paper="REPORTED",
    results="EVOLUTIONS",
    verdict="judge judge_claims",
)
