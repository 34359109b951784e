"""What an HTML page holds, for tests that look at one."""

from html.parser import HTMLParser

NEVER_CLOSED = ("meta", "img", "br")
REFERENCES = ("src", "href", "srcset", "data", "action")  # attributes that name another place


class Page(HTMLParser):
    """What a page refers to, its ids, tags and text.

    Raises AssertionError for a tag that is closed out of turn. ``open`` holds tags that never are.
    """

    def __init__(self, content: str):
        super().__init__()
        self.references = []
        self.ids = []
        self.tags = []
        self.words = []
        self.open = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in REFERENCES:
                self.references.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in NEVER_CLOSED:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
