"""The stages of the workflow, one module each: open the files, call the library, write the outputs, log them.

fetch -> train -> detect -> evaluate -> table. Each finds its inputs and outputs by `rdfa.identity.paths`, does
nothing that its outputs do not need, and leaves no output that is not whole. `opened` and `written` are what several
of them share; `unused` finds the runs that no table needs.
"""
