"""What an HTML page holds, for tests that look at one."""

from html.parser import HTMLParser

EMPTY = ("meta", "img", "br")  # tags that are never closed


class Page(HTMLParser):
    """What a page refers to, its ids, tags and text. Raises AssertionError for a tag that is closed
    out of turn; ``open`` holds those that never are."""

    def __init__(self, content: str):
        super().__init__()
        self.references, self.ids, self.tags, self.words, self.open = [], [], [], [], []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [
            value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")
        ]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
