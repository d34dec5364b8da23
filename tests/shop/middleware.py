"""A strict Content-Security-Policy on the shop's own pages and on the cache console."""

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)


class ContentSecurityPolicyMiddleware:
    """
    Forbid inline scripts and styles, and anything from another host.

    Django's own admin pages are left out, since some of them emit a `<style>` element; the console must do without.
    """

    sync_capable = True
    async_capable = False

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        if not request.path.startswith("/admin/") or request.path.startswith("/admin/cacheadmin/console/"):
            response.headers.setdefault("Content-Security-Policy", POLICY)
        return response
