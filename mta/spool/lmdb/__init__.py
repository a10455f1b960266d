"""The spool in one LMDB environment: the only package that imports lmdb."""
