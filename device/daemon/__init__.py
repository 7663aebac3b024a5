"""Who runs when: the models, the threads of source and sound, commands, health and the service's signs of
life.
"""
