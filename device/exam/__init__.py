"""One examination: its plan, its session, its judging and its result, whose it is and who the next subject
is.
"""
