"""The pages in the browser: one for the child, one for the grown-up behind a PIN.

``settings`` keeps what the grown-up chose, ``gate`` decides who may open what and lets nothing be
loaded from elsewhere, ``chat`` talks to the guard proxy, ``talk`` and ``record`` are what happens
on the two pages, ``child`` and ``grown_up`` what they look like.
"""
