"""The paper's tables and claims, beside what was measured here.

From bottom to top: `reported` holds the paper's numbers, `encoders` says which pretrained networks
there are and `questions` what they are asked; `transfer` measures, `cells` keeps what was measured,
`table` and `tables` make rows of it. `evidence` and `measures` read the results files, `claims`
says what is claimed, and `verdict` and `judge` judge.
"""
