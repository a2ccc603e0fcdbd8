"""What lies at a PATH: files, Python models, and repositories of Triton, MLServer and MLflow. Nothing is loaded."""
