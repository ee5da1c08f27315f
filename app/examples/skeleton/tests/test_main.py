def test_a_visitor_is_greeted(visitor):
    visitor.enter(visitor.find("Your name"), "Ada")
    visitor.click(visitor.find("Say hello"))
    assert "Hello, Ada!" in visitor.texts()


def test_whoever_gives_no_name_is_greeted_too(visitor):
    visitor.click(visitor.find("Say hello"))
    assert "Hello, world!" in visitor.texts()
