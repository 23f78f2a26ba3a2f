"""A conversation about an image with a trained model, in the terminal or on a page: the command `exgra-med chat`.

`exgra_adapter.evaluation` has the chat evaluation, in which a judge grades written answers; nothing of it is here.
"""
