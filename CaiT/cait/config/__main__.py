"""`python -m cait.config` prints docs/config.md."""

import cait.config
from cait.config.keys import markdown_table

explanation = cait.config.__doc__.rsplit("\n\n", 1)[0]  # but for how the keys are listed
print(f"# Config keys\n\n{explanation}\n\n{markdown_table()}", end="")
