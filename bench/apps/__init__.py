"""What the servers serve: Flet apps with a `main(page)`, and the raw websocket echo that bounds them."""
