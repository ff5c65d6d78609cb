"""Features from video files, an optional stage (`pip install 'rdfa[video]'`).

In the order of reading: `frames` (decode, resample in time, cut into clips), `encoders` (find the function that turns a
clip into a vector), `videomae` (such a function, with weights that the user brings).
"""
