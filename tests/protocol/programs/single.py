# the document's snippets, with the imports that they lack
import flet as ft
from fastapi import Request, WebSocket

from flet_fastapi import FastAPI, FletStaticFiles

app = FastAPI()

from flet_fastapi import FletApp


async def main(page: ft.Page):
    await page.add_async(ft.Text("Hello, Flet!"))


@app.websocket("/app1/ws")
async def flet_app(websocket: WebSocket):
    await FletApp(main).handle(websocket)


from flet_fastapi import FletUpload


@app.put("/upload")
async def flet_uploads(request: Request):
    await FletUpload("/Users/feodor/Downloads/123").handle(request)


from flet_fastapi import FletOAuth


@app.get("/oauth_callback")
async def flet_oauth(request: Request):
    return await FletOAuth().handle(request)


# mount to the root of web app
app.mount(path="/", app=FletStaticFiles())
