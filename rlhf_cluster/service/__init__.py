"""The service: jobs, pools, figures and samples behind a REST API, with a page; holds no connection to Ray."""
