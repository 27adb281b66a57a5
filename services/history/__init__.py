"""Delivery history: what `delivery-results` says, kept where it can be asked in milliseconds."""
