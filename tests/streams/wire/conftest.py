from hypothesis import settings

# The machine is shared: how long an example takes says nothing about the parser.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
