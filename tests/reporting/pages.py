"""Static pages as a reader's program sees them: links, anchors, images, notices."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Page(HTMLParser):
    """What a page contains."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    alternatives: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    language: str | None = None
    viewport: bool = False
    notice: str = ""
    _in_notice: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def count(self, tag: str) -> int:
        return self.tags.count(tag)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.links += [values[name] for name in ("href", "src") if name in values]
        self.anchors |= {values["id"]} if "id" in values else set()
        if tag == "img":
            self.alternatives.append(values.get("alt", ""))
        if tag == "html":
            self.language = values.get("lang")
        self.viewport |= tag == "meta" and values.get("name") == "viewport"
        self._in_notice |= tag == "p" and values.get("class") == "notice"

    def handle_endtag(self, tag: str) -> None:
        self._in_notice &= tag != "p"

    def handle_data(self, data: str) -> None:
        if self._in_notice:
            self.notice += data


def pages(site: Path) -> dict[Path, Page]:
    """Every page of a site, by its place in it."""
    found = {}
    for path in sorted(site.rglob("*.html")):
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        found[path.relative_to(site)] = page
    return found


def check_links(site: Path) -> int:
    """Assert that each link is to the web, or to a file of the site and an anchor in it; returns how many are not to
    the web."""
    found = pages(site)
    local = 0
    for name, page in found.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https"):
                continue
            local += 1
            assert not parts.scheme and not parts.netloc and not parts.path.startswith("/"), f"{name}: {link}"
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            target = target.resolve()
            assert target.is_file(), f"{name}: {link}"
            assert target.is_relative_to(site.resolve()), f"{name}: {link} leaves the site"
            if parts.fragment:
                assert parts.fragment in found[target.relative_to(site.resolve())].anchors, f"{name}: {link}"
    return local
