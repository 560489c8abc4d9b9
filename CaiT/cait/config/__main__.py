"""`python -m cait.config` prints docs/config.md."""

from cait.config import read

print(f"# Config keys\n\n{read.__doc__}\n{read.markdown_table()}", end="")
