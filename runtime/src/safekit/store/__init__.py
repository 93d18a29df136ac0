"""What a node remembers in SQLite: module logs, resources with their history, the command log (spec §6.3, §11.1,
§11.3).
"""
