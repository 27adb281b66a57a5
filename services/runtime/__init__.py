"""What every process needs: settings, logs, problems, the serving of HTTP and health."""
