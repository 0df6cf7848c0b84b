"""What goes over the wire: the messages of the REST API, shared by service, client, command line and relay."""
