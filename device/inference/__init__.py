"""The released bundle and the interpreter that runs its networks."""
