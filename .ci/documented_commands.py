"""Prints the shell commands that Markdown files show, one per line, for continuous integration to run.

Commands stand in fenced ``bash`` blocks. A command that only a person or another machine can run is in a block
marked ``bash no-ci`` with the reason beside it in the
text. Installation is done already when this runs, so ``pip install ... &&`` is cut off; pytest has its own step.
"""

import re
import sys
from pathlib import Path

seen = set()
for name in sys.argv[1:]:
    for block in re.findall(r"^```bash\n(.*?)^```", Path(name).read_text(), flags=re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"^pip install [^&]*(&& )?", "", line.split(" #")[0].strip())
            if command and not command.startswith(("#", "pytest")) and command not in seen:
                seen.add(command)
                print(command)
