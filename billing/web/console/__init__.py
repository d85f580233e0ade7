"""The operations console, at `/`: what a billing operator needs at a glance, and acts on.

visit.py      who is there: the signed cookie, its age, the token that every form carries
door.py       what every route goes through, before and after: may they come in, is the form ours
look.py       rendering: templates, texts, formats, language, theme, the message after an action
today.py …    the pages; each reads one view or calls one use case
actions.py    what changes something: a page that says what follows, then the deed
charts.py     the pictures, drawn on the server
"""

from billing.web.console.router import install

__all__ = ["install"]
