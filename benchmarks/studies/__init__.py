"""Studies that readers of the method ask for; each is a module that runs by itself."""
