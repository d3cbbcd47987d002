"""The list, in docs/README.md, of what is not run."""

import os

from blocks import ROOT, Fault, blocks_of, pages

LIST_PAGE = ROOT / "docs/README.md"
LIST_BEGIN = "<!-- not run: written by UPDATE_DOCS=1 scripts/try-docs -->\n"
LIST_END = "<!-- not run: end -->"


def not_run() -> str:
    """The list of what is not run, as docs/README.md has it."""
    rows = ["| page | command | why |", "|---|---|---|"]
    for page in pages():
        for block in blocks_of(page):
            if block.language and (reason := block.why_not()) is not None:
                first = next(it for it in block.body if not it.lstrip().startswith("#"))
                first = first.removeprefix("$ ").replace("|", "\\|").rstrip(" \\")
                link = os.path.relpath(page, "docs")
                rows.append(f"| [{page}]({link}) | `{first}` | {reason} |")
    return "\n".join(rows)


def hold_list() -> None:
    page = LIST_PAGE.read_text()
    before, rest = page.split(LIST_BEGIN)
    after = rest[rest.index(LIST_END) :]
    wanted = f"{before}{LIST_BEGIN}\n{not_run()}\n\n{after}"
    if page == wanted:
        return
    if "UPDATE_DOCS" in os.environ:
        LIST_PAGE.write_text(wanted)
        return
    raise Fault(
        "docs/README.md does not list what is not run; "
        "to rewrite it: UPDATE_DOCS=1 scripts/try-docs docs/README.md"
    )
