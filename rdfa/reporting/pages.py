"""Static pages from Markdown and templates: escaped, readable on a phone, light or dark, without scripts.

In the order of reading: `table_page` (a table for Snakemake's report), `rendered` and `inline` (Markdown as HTML),
`page` (a page of the site, from `templates/`).
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

_NOT_IN_A_SLUG = re.compile(r"[^\w\- ]")


def table_page(markdown: str, title: str) -> str:
    """A table's Markdown as one HTML file with nothing beside it."""
    return page("alone.html", title=title, body=rendered(markdown))


def rendered(markdown: str, link: Callable[[str], str | None] = str) -> Markup:
    """Markdown as HTML; HTML in it is shown as text. Tables can be scrolled sideways; headings can be linked to.

    Args:
        link: target of a link → what it is in the page; None leaves its text alone.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and following is not None:
            token.attrSet("id", slug(following.content))
        if token.type == "inline":
            token.children = _relinked(token.children or [], link)
    html = parser.renderer.render(tokens, parser.options, {})
    html = html.replace("<table>", '<div class="wide" tabindex="0"><table>').replace("</table>", "</table></div>")
    return Markup(html)  # noqa: S704 (the parser escapes HTML)


def inline(markdown: str) -> Markup:
    """A sentence of Markdown as HTML, without a paragraph around it."""
    return Markup(MarkdownIt("commonmark", {"html": False}).renderInline(markdown))  # noqa: S704


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return _NOT_IN_A_SLUG.sub("", heading.strip().lower()).replace(" ", "-")


def page(template: str, **values: Any) -> str:
    """A page from one of the templates; whatever it is given is escaped, unless it is rendered Markdown."""
    return _templates().get_template(template).render(**values)


def template_text(name: str) -> str:
    """A file of `templates/` as it is."""
    return page(name)


@cache
def _templates() -> Environment:
    loader = PackageLoader("rdfa.reporting", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _relinked(tokens: list[Token], link: Callable[[str], str | None]) -> list[Token]:
    kept, closed = [], []
    for token in tokens:
        if token.type == "link_open":
            target = link(str(token.attrs["href"]))
            closed.append(target is None)
            if target is None:
                continue
            token.attrSet("href", target)
        elif token.type == "link_close" and closed.pop():
            continue
        kept.append(token)
    return kept
