"""The one place that knows trio's sockets: it drives any protocol and knows none."""
