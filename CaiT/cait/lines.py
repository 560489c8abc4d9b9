"""Text that others chose, in lines that people read: names of files, headers of requests, messages of libraries."""

_BLANKS = "\t\u00a0\u3000"  # which Python calls not printable, but which do no harm


def one_line(text: object) -> str:
    r"""The text as it may stand in a line on a terminal or in a log.

    Characters that end a line, steer a terminal or turn the direction of writing become escapes such as `\x1b`, as
    Python writes them; letters of all languages and blanks stay as they are.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in _BLANKS else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
