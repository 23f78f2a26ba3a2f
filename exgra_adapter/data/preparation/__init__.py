"""Public medical question-answering data in the training format.

One file per data set says where its files lie and how a row becomes samples; `prepare` runs any of them. Nothing is
downloaded, and nothing is unpickled: a pickle can run code when it is read.
"""
