"""What every command needs of the machine it runs on: environment variables, versions, files, tables, images."""
