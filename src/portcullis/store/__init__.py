"""All SQL of the head-end.

Does: the tables (`schema`), their migrations, and one module per aggregate
      with the statements that read and write it.
Owns: every statement; which room may write which table stands in `schema`.
Speaks: MariaDB ≥ 10.6 or MySQL 8 in production, SQLite as the embedded default.
Never: holds a row lock across anything but SQL; compares one machine's clock
       with another's (what processes compare is the database's time).
"""
