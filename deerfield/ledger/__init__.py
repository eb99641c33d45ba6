"""A population's ledger as values: entries in a hash chain, what they add up to, and what an auditor finds in them.

entry     one entry: canonical JSON, hash, signature
forms     which keys each kind of entry has, and what may stand under them
details   what entries say, as values
chain     whether lines are a chain that nobody has touched
account   what a chain adds up to: the fold over its entries
charging  what the next entry would say, or why it may not be written
audit     offline verification: chain, signatures, every epsilon recomputed
statement the rows of a table

Nothing here reads or writes a file; `services.client.ledger_file` does.
"""
