"""The project's container images, built from the Dockerfiles that users build them from."""
