"""Tell the team what an audit found: one message to each `[[notify]]` of the settings.

`message` writes it, `robots` knows what each kind of robot takes and answers, `send` delivers it.
"""
