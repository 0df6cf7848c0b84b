// The start: queries, the address, and the whole page.
import { QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { BrowserRouter } from "react-router";
import { ApiError, Away } from "./api/client";
import { App } from "./App";
import { BASE } from "./base";
import { Sayings } from "./parts/say";
import "./styles/tokens.css";

const client = new QueryClient({
  queryCache: new QueryCache({
    onError: (error, query) => {
      // The session ended: asking again who one is brings the login.
      if (error instanceof ApiError && error.status === 401 && query.queryKey[0] !== "me") {
        void client.invalidateQueries({ queryKey: ["me"] });
      }
    },
  }),
  defaultOptions: {
    queries: {
      retry: (failures, error) => error instanceof Away && failures < 2,
      staleTime: 2000,
      refetchOnWindowFocus: true,
    },
  },
});

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <QueryClientProvider client={client}>
      <BrowserRouter basename={BASE.replace(/\/$/, "")}>
        <Sayings>
          <App />
        </Sayings>
      </BrowserRouter>
    </QueryClientProvider>
  </StrictMode>,
);
