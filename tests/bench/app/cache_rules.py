"""What a write to an item drops; only cacheadmin reads this."""

from cacheadmin import Rule

rules = [Rule("items", model="app.Item", targets=["bench_items", "bench_late"])]
