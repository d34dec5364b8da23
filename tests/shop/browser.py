"""A visitor's browser in a few lines: cookies, forms with their CSRF token, and what a page says about its cache."""

import re
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
OUTCOME = re.compile(r'<tr data-group="([^"]+)" data-result="([^"]+)">')


class Browser:
    """
    Fetch pages of the site at `url`.

    `status` and `text` hold the last answer. Raises: OSError if nobody answers.
    """

    def __init__(self, url, timeout=15):
        self.url, self.timeout = url, timeout
        self.status, self.text = 0, ""
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self, path, **query):
        """Fetch a page; an answer of 4xx or 5xx is an answer. Returns: its text."""
        return self._open(path + (f"?{urllib.parse.urlencode(query)}" if query else ""))

    def submit(self, page, path, **fields):
        """Post fields to `path` with the token of the form on `page`. Returns: the text of the page that follows."""
        token = TOKEN.search(self.get(page))
        if token is None:
            raise LookupError(f"{page} has no form: it answered {self.status}.")
        return self._open(path, urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode())

    def outcomes(self):
        """Return what the last page said about its cached parts: `[(group, result), …]`."""
        return OUTCOME.findall(self.text)

    def _open(self, path, data=None):
        address = urllib.parse.urljoin(self.url, path)
        try:
            answer = self._opener.open(address, data, self.timeout)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            self.status, self.text = answer.status, answer.read().decode()
        return self.text
