"""The CRM's users."""
