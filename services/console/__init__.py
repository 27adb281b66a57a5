"""The console: pages of the admin service for people, over the same functions as its API. No page asks anybody else."""
