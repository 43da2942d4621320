"""A folder for PYTHONPATH: ``python -m pyalloc run --profile`` lets the program's interpreters find it.

It is no package to import; this file is here so that it is installed.
"""
