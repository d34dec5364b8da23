"""When a row changes, what was read of its tenant's rows goes; each table in a group of its own."""

from cacheadmin import Rule

ANY = ["create", "update", "delete", "m2m"]

rules = [
    Rule("rows", model="faults.Row", tenant="tenant", targets=["group:rows"]),
    Rule("labels", model="faults.Label", tenant="tenant", targets=["group:labels", "tag:label:{pk}"]),
    Rule("things", model="faults.Thing", tenant="tenant", events=ANY, targets=["group:things"]),
    # What belongs to a thing moves with it, and is not written then.
    Rule("moves", model="faults.Thing", tenant="tenant", fields=["tenant"], targets=["group:makings", "group:marks"]),
    Rule("specials", model="faults.Special", tenant="tenant", targets=["group:specials"]),
    Rule("makings", model="faults.Making", tenant="thing__tenant", targets=["group:makings"]),
    Rule("marks", model="faults.Mark", tenant="thing__tenant", targets=["group:marks"]),
]
