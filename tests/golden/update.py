"""Write the golden files anew: python tests/golden/update.py, then read the difference before it is committed."""

from __future__ import annotations

from pathlib import Path

import softmap

HERE = Path(__file__).parent

if __name__ == "__main__":
    for lang in ("en", "zh"):
        example = softmap.explain(softmap.example(), lang=lang)
        (HERE / f"example.{lang}.txt").write_text(str(example), encoding="utf-8")
    softmap.explain(softmap.example(), lang="en").save(HERE / "example.en.svg")
    model = softmap.explain("I love learning", layer=3, head=1, lang="en")
    (HERE / "model.en.txt").write_text(str(model), encoding="utf-8")
