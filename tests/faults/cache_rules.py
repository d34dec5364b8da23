"""When a row changes, what was read of its tenant's rows goes."""

from cacheadmin import Rule

rules = [Rule("rows", model="faults.Row", tenant="tenant", targets=["group:rows"])]
