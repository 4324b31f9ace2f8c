"""The benchmarks' own rules, deterministic: a question and the text of an answer → what the rule reads, and whether it
is right.

Each module has `read(sample, text) -> Reading`. What does not parse is wrong and counted as such: no rule guesses,
where the official code of MMMU draws a random letter. Where the official code asks a language model to extract the
answer (MathVista, MathVerse, HallusionBench), a rule of `marked.py` extracts it here, and the official comparison
follows; that model's own verdict is the column `judge`.
"""
