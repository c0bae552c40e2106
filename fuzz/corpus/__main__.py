"""python -m fuzz.corpus: write the files of the corpus again."""

from fuzz.corpus import FOLDER, write

print(f"{write()} files in {FOLDER}")
