"""Drift: one pass over data gives a small profile, two profiles give a verdict. No Airflow in here.

Only code that computes needs numpy and pyarrow (extra ``drift``); import its modules where they are used.
"""
