"""The admin API: who may change which configuration, and how."""
