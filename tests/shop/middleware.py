"""A strict Content-Security-Policy, and the list of what the cache did for a request."""

from .outcomes import collected

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class ContentSecurityPolicyMiddleware:
    """
    Forbid inline scripts and styles, and anything from another host.

    Django's own admin pages are left out, since some of them emit a `<style>` element; the console and its rules must
    do without.
    """

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        if not request.path.startswith("/admin/") or request.path.startswith("/admin/cacheadmin/"):
            response.headers.setdefault("Content-Security-Policy", POLICY)
        return response


class OutcomesMiddleware:
    """Collect what the cache did during a request; the template tags of `shop` show it."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        with collected() as request.outcomes:
            return self.get_response(request)
